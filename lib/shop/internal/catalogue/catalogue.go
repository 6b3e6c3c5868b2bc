// Package catalogue knows the books: MariaDB keeps them, Redis a copy for a while.
package catalogue

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
)

// Migrations of the tables of orders and books.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Book is an entry of the catalogue.
type Book struct {
	ID         string `json:"id"`
	Title      string `json:"title"`
	PriceCents int64  `json:"price_cents"`
}

// ErrUnknown means that there is no such book.
var ErrUnknown = errors.New("no such book")

// Table is the catalogue in MariaDB.
type Table struct{ all, one *sql.Stmt }

// NewTable prepares the statements.
func NewTable(ctx context.Context, db *sql.DB) (*Table, error) {
	const columns = "SELECT id, title, price_cents FROM books"
	all, err := db.PrepareContext(ctx, columns+" ORDER BY id")
	if err != nil {
		return nil, fmt.Errorf("prepare the list of books: %w", err)
	}
	one, err := db.PrepareContext(ctx, columns+" WHERE id = ?")
	if err != nil {
		return nil, fmt.Errorf("prepare a book: %w", err)
	}
	return &Table{all, one}, nil
}

// Books returns the whole catalogue.
func (t *Table) Books(ctx context.Context) ([]Book, error) {
	rows, err := t.all.QueryContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the books: %w", err)
	}
	defer rows.Close()
	books := []Book{}
	for rows.Next() {
		var b Book
		if err := rows.Scan(&b.ID, &b.Title, &b.PriceCents); err != nil {
			return nil, fmt.Errorf("read a book: %w", err)
		}
		books = append(books, b)
	}
	return books, rows.Err()
}

// Book returns one book, or ErrUnknown.
func (t *Table) Book(ctx context.Context, id string) (Book, error) {
	var b Book
	err := t.one.QueryRowContext(ctx, id).Scan(&b.ID, &b.Title, &b.PriceCents)
	if errors.Is(err, sql.ErrNoRows) {
		return b, ErrUnknown
	}
	if err != nil {
		return b, fmt.Errorf("read book %s: %w", id, err)
	}
	return b, nil
}
