"""Reports, sensitivity scans and the measurements behind them."""
