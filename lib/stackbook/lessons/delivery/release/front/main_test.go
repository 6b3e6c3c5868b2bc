package main

import "testing"

func TestPrice(t *testing.T) {
	if cents := price(0); cents != 120 {
		t.Errorf("item 0 costs %d", cents)
	}
}
