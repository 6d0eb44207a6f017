"""From forecasts to orders: what trading costs, how much to hold, when to change it."""
