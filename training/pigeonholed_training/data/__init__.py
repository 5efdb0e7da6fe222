"""The pictures of a data set: found, decoded once, grouped, split and looked over."""
