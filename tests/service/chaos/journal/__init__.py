"""A service that writes down what it hears, and would show anything heard twice."""
