"""The etcd that a run coordinates through: a private server, or the lab's own cluster."""
