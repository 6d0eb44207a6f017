"""From intents to fills: Guardian, the order book of record, brokers, and the loop that drives them."""
