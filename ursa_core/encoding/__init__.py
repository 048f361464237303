"""Media to codes: clips are found, cut, filtered and encoded into token shards."""
