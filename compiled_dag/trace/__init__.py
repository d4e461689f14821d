"""What a graph's participants did lately: recorded always, read at any time, shown in two ways."""
