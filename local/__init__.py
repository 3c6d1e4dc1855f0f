"""Stand-ins for what a cluster has, for one machine. They import nothing of `trainyard`: only public protocols."""
