"""``make bench``: what the product costs and how quick it is, beside peers and the physical limit."""
