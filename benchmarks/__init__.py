"""What a run of testbed costs, measured beside its peers on one machine, in one go."""
