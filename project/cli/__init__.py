"""The command line: LightningCLI, commands, loggers."""
