package service

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Settings reads environment variables and remembers which are wrong, so that all of them are told at once.
type Settings struct{ wrong []string }

// Text is a variable's value, or otherwise.
func (s *Settings) Text(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// Required is the value of a variable that has to be set.
func (s *Settings) Required(name string) string {
	value := os.Getenv(name)
	if value == "" {
		s.wrong = append(s.wrong, name+" is not set")
	}
	return value
}

// Number is a variable's value, which is at least least.
func (s *Settings) Number(name string, otherwise, least int) int {
	text := s.Text(name, strconv.Itoa(otherwise))
	number, err := strconv.Atoi(text)
	if err != nil || number < least {
		s.wrong = append(s.wrong, fmt.Sprintf("%s is %q, not a number from %d on", name, text, least))
	}
	return number
}

// Seconds is a variable's value as a duration.
func (s *Settings) Seconds(name string, otherwise int) time.Duration {
	return time.Duration(s.Number(name, otherwise, 0)) * time.Second
}

// Switch is a variable's value, true or false.
func (s *Settings) Switch(name string, otherwise bool) bool {
	text := s.Text(name, strconv.FormatBool(otherwise))
	on, err := strconv.ParseBool(text)
	if err != nil {
		s.wrong = append(s.wrong, fmt.Sprintf("%s is %q, neither true nor false", name, text))
	}
	return on
}

// Check returns an error that names every wrong variable.
func (s *Settings) Check() error {
	if len(s.wrong) == 0 {
		return nil
	}
	return fmt.Errorf("environment: %s", strings.Join(s.wrong, "; "))
}
