package database

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

const lockSeconds = 30

// Migrate runs the files that this database has not seen, in the order of their numbers: 0001_orders.sql, …
// Several copies of a program may call it at the same time: one works, the others wait for it.
//
// A statement that changes a table cannot be rolled back in MariaDB, so each of them can be run again.
func Migrate(ctx context.Context, db *sql.DB, files fs.FS) error {
	known, err := migrations(files)
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx) // the lock belongs to one connection
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	var held sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK(CONCAT(DATABASE(), '.migrations'), ?)", lockSeconds).Scan(&held); err != nil {
		return fmt.Errorf("lock the migrations: %w", err)
	}
	if held.Int64 != 1 {
		return fmt.Errorf("lock the migrations: another program holds the lock for more than %d s", lockSeconds)
	}
	defer func() {
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), "DO RELEASE_LOCK(CONCAT(DATABASE(), '.migrations'))")
	}()
	return run(ctx, conn, known)
}

func run(ctx context.Context, conn *sql.Conn, known []migration) error {
	const table = "CREATE TABLE IF NOT EXISTS migrations (version INT PRIMARY KEY, applied TIMESTAMP DEFAULT CURRENT_TIMESTAMP)"
	if _, err := conn.ExecContext(ctx, table); err != nil {
		return fmt.Errorf("create the table of migrations: %w", err)
	}
	var version int
	if err := conn.QueryRowContext(ctx, "SELECT COALESCE(MAX(version), 0) FROM migrations").Scan(&version); err != nil {
		return fmt.Errorf("read the version of the database: %w", err)
	}
	if version > len(known) {
		return fmt.Errorf("the database has version %d, this program knows %d: run a newer one", version, len(known))
	}
	for _, m := range known[version:] {
		for _, statement := range m.statements {
			if _, err := conn.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("migration %s: %w", m.name, err)
			}
		}
		if _, err := conn.ExecContext(ctx, "INSERT INTO migrations (version) VALUES (?)", m.version); err != nil {
			return fmt.Errorf("note migration %s: %w", m.name, err)
		}
	}
	return nil
}

type migration struct {
	version    int
	name       string
	statements []string
}

func migrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "migrations/*.sql") // sorted
	if err != nil {
		return nil, fmt.Errorf("list the migrations: %w", err)
	}
	var found []migration
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		number, _, _ := strings.Cut(path.Base(name), "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != len(found)+1 {
			return nil, fmt.Errorf("%s is not migration %d: their numbers have no gap", name, len(found)+1)
		}
		found = append(found, migration{version, path.Base(name), statements(string(text))})
	}
	return found, nil
}

// statements splits a file at the semicolons that end a line.
func statements(text string) []string {
	var found []string
	for part := range strings.SplitSeq(text, ";\n") {
		if part = strings.TrimSpace(part); part != "" {
			found = append(found, part)
		}
	}
	return found
}
