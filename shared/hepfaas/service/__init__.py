"""What the functions do between a request and the steps: doing what an event asks, sending what is next, telling."""
