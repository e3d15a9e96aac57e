"""Plans of what a runtime gains from pruning."""
