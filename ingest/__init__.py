"""The edge: Lambda events in, AWS answers out, and the workflow call between them."""
