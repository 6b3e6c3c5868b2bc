package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/go-sql-driver/mysql"
)

var files = fstest.MapFS{
	"migrations/0001_one.sql": {Data: []byte("CREATE TABLE a (x INT);\nINSERT INTO a VALUES (';');\n")},
	"migrations/0002_two.sql": {Data: []byte("CREATE TABLE b (x INT);\n")},
}

func server(t *testing.T) (*sql.DB, sqlmock.Sqlmock) {
	t.Helper()
	db, mock, err := sqlmock.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		db.Close()
		if err := mock.ExpectationsWereMet(); err != nil {
			t.Error(err)
		}
	})
	return db, mock
}

func locked(mock sqlmock.Sqlmock, version int) {
	mock.ExpectQuery("GET_LOCK").WillReturnRows(sqlmock.NewRows([]string{"held"}).AddRow(1))
	mock.ExpectExec("CREATE TABLE IF NOT EXISTS migrations").WillReturnResult(sqlmock.NewResult(0, 0))
	mock.ExpectQuery("MAX").WillReturnRows(sqlmock.NewRows([]string{"version"}).AddRow(version))
}

func TestOnlyWhatIsMissingRuns(t *testing.T) {
	db, mock := server(t)
	locked(mock, 1)
	mock.ExpectExec("CREATE TABLE b").WillReturnResult(sqlmock.NewResult(0, 0))
	mock.ExpectExec("INSERT INTO migrations").WithArgs(2).WillReturnResult(sqlmock.NewResult(0, 1))
	mock.ExpectExec("RELEASE_LOCK").WillReturnResult(sqlmock.NewResult(0, 0))
	if err := Migrate(context.Background(), db, files); err != nil {
		t.Fatal(err)
	}
}

func TestADatabaseOfANewerProgramIsRefused(t *testing.T) {
	db, mock := server(t)
	locked(mock, 3)
	mock.ExpectExec("RELEASE_LOCK").WillReturnResult(sqlmock.NewResult(0, 0))
	err := Migrate(context.Background(), db, files)
	if err == nil || !strings.Contains(err.Error(), "version 3, this program knows 2") {
		t.Errorf("error %v", err)
	}
}

func TestTheLockOfAnotherProgramIsWaitedForWithADeadline(t *testing.T) {
	db, mock := server(t)
	mock.ExpectQuery("GET_LOCK").WillReturnRows(sqlmock.NewRows([]string{"held"}).AddRow(0))
	if err := Migrate(context.Background(), db, files); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Errorf("error %v", err)
	}
}

func TestStatementsEndAtTheEndOfALine(t *testing.T) {
	found, err := migrations(files)
	if err != nil || len(found) != 2 || len(found[0].statements) != 2 {
		t.Errorf("%+v, %v", found, err)
	}
	gap := fstest.MapFS{"migrations/0002_two.sql": {Data: []byte("SELECT 1;\n")}}
	if _, err := migrations(gap); err == nil {
		t.Error("a gap in the numbers is no error")
	}
}

func TestAFailureRollsBack(t *testing.T) {
	db, mock := server(t)
	mock.ExpectBegin()
	mock.ExpectRollback()
	broken := errors.New("broken")
	err := Transact(context.Background(), db, sql.LevelDefault, func(*sql.Tx) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

func TestARowThatExistsIsToldApart(t *testing.T) {
	if !Duplicate(fmt.Errorf("insert: %w", &mysql.MySQLError{Number: 1062})) || Duplicate(errors.New("1062")) {
		t.Error("only MariaDB's error 1062 is a duplicate")
	}
}
