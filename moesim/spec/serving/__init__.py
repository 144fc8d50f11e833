"""What a serving scenario says: workload, engine, layout, cluster of replicas."""
