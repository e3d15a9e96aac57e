"""Export: files for other runtimes, each run there and compared with the Keras model before it is handed over."""
