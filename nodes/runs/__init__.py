"""Nodes for runs that are kept: resume, extend, branch, list, clean."""
