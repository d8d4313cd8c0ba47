"""What the ops and a monitored training step cost on this machine, beside a floor: `imbdyn bench`."""
