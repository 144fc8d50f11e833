"""The rules by which a router chooses experts: samplers, and what to expect of them."""
