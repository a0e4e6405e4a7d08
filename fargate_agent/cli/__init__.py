"""The command line, `fargate`: what a person types."""
