// Package database opens a program's database and brings its tables up to date.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"

	"stackbook.dev/shop/internal/service"
)

// Open returns the database that DB_ADDRESS, DB_NAME, DB_USER and DB_PASSWORD name; it does not connect yet.
func Open(s *service.Settings) (*sql.DB, error) {
	config := mysql.NewConfig()
	config.Net, config.Addr = "tcp", s.Text("DB_ADDRESS", "mariadb:3306")
	config.DBName, config.User, config.Passwd = s.Required("DB_NAME"), s.Required("DB_USER"), s.Required("DB_PASSWORD")
	config.Timeout, config.ReadTimeout, config.WriteTimeout = 2*time.Second, 10*time.Second, 10*time.Second
	config.ParseTime = true
	config.Params = map[string]string{"time_zone": "'+00:00'"}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, fmt.Errorf("settings of the database: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(12)
	db.SetMaxIdleConns(12)
	db.SetConnMaxLifetime(5 * time.Minute)
	return db, nil
}

// Transact runs work in a transaction: all of it is stored, or nothing.
func Transact(ctx context.Context, db *sql.DB, level sql.IsolationLevel, work func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	if err := work(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Duplicate says whether a row exists already that an INSERT wanted to add.
// https://mariadb.com/kb/en/mariadb-error-code-reference/
func Duplicate(err error) bool {
	var refused *mysql.MySQLError
	return errors.As(err, &refused) && refused.Number == 1062
}
