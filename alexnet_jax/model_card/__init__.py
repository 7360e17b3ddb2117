"""Model cards: what a workdir says about its network, to readers and to model hubs."""
