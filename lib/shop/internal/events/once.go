package events

import (
	"context"
	"database/sql"
	"fmt"

	"stackbook.dev/shop/internal/database"
)

// Once runs an effect in the transaction that also notes the order's id, so that an event that comes again has
// no second effect. It returns false if the id was there. With idempotent false it does not look, which the
// lab uses to show what happens then.
func Once(ctx context.Context, db *sql.DB, order string, idempotent bool, effect func(tx *sql.Tx) error) (bool, error) {
	fresh := true
	err := database.Transact(ctx, db, sql.LevelDefault, func(tx *sql.Tx) error {
		noted, err := tx.ExecContext(ctx, "INSERT IGNORE INTO processed (order_id) VALUES (?)", order)
		if err != nil {
			return fmt.Errorf("note the event: %w", err)
		}
		rows, err := noted.RowsAffected()
		if err != nil {
			return fmt.Errorf("note the event: %w", err)
		}
		if fresh = rows == 1 || !idempotent; !fresh {
			return nil
		}
		return effect(tx)
	})
	return fresh && err == nil, err
}
