"""Components: a catalogue, a content-addressed cache, and the sources that fill it."""
