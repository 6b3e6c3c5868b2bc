package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	current = "0.log"
	rotated = 4           // how many rotated files stay, as the kubelet keeps four beside the current one
	overlap = time.Second // how much is read again: the two streams of a container can be out of order by a little
)

// file is the log of one container, in the runtime's form: "TIME stdout F TEXT".
type file struct {
	folder string
	limit  int64
	open   *os.File
	size   int64
	last   string    // its last line, as the API server has sent it
	at     time.Time // the time of that line
	cut    string    // the beginning of a line that a killed process has not finished
}

// newFile goes on with the file that an earlier process has left.
func newFile(folder string, limit int64) (*file, error) {
	f := &file{folder: folder, limit: limit}
	data, err := os.ReadFile(filepath.Join(folder, current))
	if os.IsNotExist(err) {
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	text := string(data)
	end := strings.LastIndexByte(text, '\n') + 1
	f.cut = text[end:]
	if end > 0 {
		line := text[strings.LastIndexByte(text[:end-1], '\n')+1 : end]
		f.last = strings.Replace(line, " stdout F ", " ", 1)
		if f.at, err = written(f.last); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// since is from when on the log has to be read, as the API server wants it; empty for all of it.
func (f *file) since() string {
	if f.last == "" {
		return ""
	}
	return f.at.Add(-overlap).UTC().Format(time.RFC3339Nano)
}

// new says whether a line follows the file's last one; `seen` is what it said of the line before, and false for the first of an answer.
//
// An answer repeats lines. All up to the last one are there already. If that one is missing, as after the start of a new container,
// later lines are new. A line that is written twice does no harm: its document has the same id.
func (f *file) new(line string, seen bool) (bool, error) {
	if seen || f.last == "" {
		return true, nil
	}
	at, err := written(line)
	return err == nil && at.After(f.at), err
}

// add writes a line of the API server: "TIME TEXT\n".
func (f *file) add(line string) error {
	at, err := written(line)
	if err != nil {
		return err
	}
	moment, text, _ := strings.Cut(line, " ")
	if err := f.write(moment + " stdout F " + text); err != nil {
		return err
	}
	f.last, f.at = line, at
	return nil
}

func written(line string) (time.Time, error) {
	moment, _, found := strings.Cut(line, " ")
	at, err := time.Parse(time.RFC3339Nano, moment)
	if err != nil || !found {
		return at, fmt.Errorf("%.60q does not begin with a time", line)
	}
	return at, nil
}

func (f *file) write(text string) error {
	if f.cut != "" { // the rest of the line, or if it is another one, the end of that line
		rest, found := strings.CutPrefix(text, f.cut)
		if !found {
			rest = "\n" + text
		}
		text, f.cut = rest, ""
	}
	if f.open != nil && f.size+int64(len(text)) > f.limit {
		if err := f.rotate(); err != nil {
			return err
		}
	}
	if f.open == nil {
		if err := f.create(); err != nil {
			return err
		}
	}
	count, err := f.open.WriteString(text)
	f.size += int64(count)
	return err
}

func (f *file) create() error {
	if err := os.MkdirAll(f.folder, 0o755); err != nil {
		return err
	}
	opened, err := os.OpenFile(filepath.Join(f.folder, current), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	about, err := opened.Stat()
	if err != nil {
		opened.Close()
		return err
	}
	f.open, f.size = opened, about.Size()
	return nil
}

// rotate gives the file a name with the time, like the kubelet's, and removes the oldest ones.
func (f *file) rotate() error {
	f.close()
	path := filepath.Join(f.folder, current)
	if err := os.Rename(path, path+"."+time.Now().UTC().Format("20060102-150405.000000000")); err != nil {
		return err
	}
	old, err := filepath.Glob(path + ".*")
	if err != nil {
		return err
	}
	slices.Sort(old)
	for _, name := range old[:max(0, len(old)-rotated)] {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

func (f *file) close() {
	if f.open != nil {
		f.open.Close()
		f.open = nil
	}
}

// remove deletes the container's folder, and the pod's when it is empty.
func (f *file) remove() {
	f.close()
	os.RemoveAll(f.folder)
	os.Remove(filepath.Dir(f.folder))
}
