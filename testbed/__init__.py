"""testbed: declarative deployments over several machines, driven by Ansible, coordinated by etcd."""

__version__ = "0.1.0"
