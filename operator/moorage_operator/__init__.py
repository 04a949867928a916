"""Keeps what runs equal to each ModelDeployment."""
