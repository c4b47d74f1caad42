"""Documents indexed and searched: vectors of a heavy encoder found by queries of a light one."""
