"""What one model does besides text to video: clips made from given frames."""
