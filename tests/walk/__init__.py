"""A walk at random through what calls may do, to find what is left behind when they are over."""
