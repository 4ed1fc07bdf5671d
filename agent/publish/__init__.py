"""Publishers: each takes one subscription of the feed and puts its bytes on one kind of wire."""
