"""What a folder of ours is: its manifest, its files and their hashes, and the runs it comes from."""
