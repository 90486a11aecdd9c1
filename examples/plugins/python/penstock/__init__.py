"""Holds the SDK that this plugin was made with."""
