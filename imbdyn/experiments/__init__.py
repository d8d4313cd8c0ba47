"""The built-in experiments: data, imbalance profiles, networks, methods, one run (`train`), and many of them (`study`).

They are chosen by a TOML file (`config`); what a user adds is named there by an import path.
"""
