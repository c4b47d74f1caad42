"""What pages are made of: the frame, charts, and tables that several share."""
