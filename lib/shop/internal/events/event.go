// Package events is what the shop's programs tell each other through Kafka.
package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Schema is the newest version of OrderPlaced. Version 1 had no currency: every price was in euros.
const Schema = 2

// OrderPlaced says that an order was placed.
type OrderPlaced struct {
	Schema     int       `json:"schema"`
	Order      string    `json:"order"`
	Customer   string    `json:"customer"`
	Book       string    `json:"book"`
	Quantity   int       `json:"quantity"`
	TotalCents int64     `json:"total_cents"`
	Currency   string    `json:"currency,omitempty"`
	Placed     time.Time `json:"placed"`
}

// Encode writes the event in an old or the newest version.
func (e OrderPlaced) Encode(schema int) ([]byte, error) {
	if schema < 1 || schema > Schema {
		return nil, fmt.Errorf("there is no version %d of order-placed", schema)
	}
	e.Schema = schema
	if schema == 1 {
		e.Currency = ""
	}
	return json.Marshal(e)
}

// Decode reads an event of any known version. Unknown fields are ignored, so that producers may add some.
func Decode(data []byte) (OrderPlaced, error) {
	var e OrderPlaced
	if err := json.Unmarshal(data, &e); err != nil {
		return e, fmt.Errorf("read order-placed: %w", err)
	}
	if e.Schema < 1 || e.Schema > Schema {
		return e, fmt.Errorf("read order-placed: unknown version %d", e.Schema)
	}
	if e.Schema == 1 {
		e.Currency = "EUR"
	}
	if e.Order == "" || e.Customer == "" || e.Currency == "" || e.Placed.IsZero() {
		return e, errors.New("read order-placed: a required field is missing")
	}
	return e, nil
}
