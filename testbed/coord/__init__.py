"""Coordination through etcd: the store, its two implementations, and the primitives over it."""
