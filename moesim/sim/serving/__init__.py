"""Serving: requests, engines that batch them, clusters of replicas."""
