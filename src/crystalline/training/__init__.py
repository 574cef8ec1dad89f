"""From shards to a trained model: the same bits whenever and however often it is started."""
