"""The built-in experiment: real data, three runs, one command (`imbdyn run`)."""
