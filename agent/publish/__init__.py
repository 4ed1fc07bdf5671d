"""Publishers: each sends the records of the feed to one kind of destination."""
