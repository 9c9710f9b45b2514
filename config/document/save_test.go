package document

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/config/internal/models"
)

// weigh returns c with another weight of its first host.
func weigh(c *config.Config, weight int) *config.Config {
	d := c.Clone()
	d.Services[0].Groups[0].Hosts[0].Weight = weight
	return d
}

func readDocument(t *testing.T, path string) *File {
	t.Helper()
	d, problems := Open(path)
	if d == nil {
		t.Fatal(problems)
	}
	return d
}

// sampleFile writes the sample to a folder of its own.
func sampleFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.xml")
	if err := os.WriteFile(path, models.Samples(t)["config.xml"], 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

// folder returns the names in the folder of a file.
func folder(t *testing.T, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSave(t *testing.T) {
	path := sampleFile(t)
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := readDocument(t, path)
	if same, err := d.Save(d.Config, 10); err != nil || same != d || len(folder(t, path)) != 1 {
		t.Fatalf("without a change: %v, %v", err, folder(t, path))
	}
	for weight := 2; weight <= 6; weight++ {
		if d, err = d.Save(weigh(d.Config, weight), 3); err != nil {
			t.Fatal(err)
		}
		again := readDocument(t, path)
		if again.Config.Services[0].Groups[0].Hosts[0].Weight != weight || len(changes.Diff(again.Config, d.Config)) > 0 {
			t.Fatalf("weight %d is not in the file", weight)
		}
		if weight == 2 {
			kept, err := os.ReadFile(filepath.Join(filepath.Dir(path), folder(t, path)[1]))
			if err != nil || string(kept) != string(first) {
				t.Errorf("what was kept is not the old file: %v", err)
			}
		}
	}
	names := folder(t, path)
	form := regexp.MustCompile(`^c\.xml-\d{14}(-\d+)?$`)
	if len(names) != 4 || names[0] != "c.xml" || !slices.ContainsFunc(names, form.MatchString) {
		t.Errorf("the folder has %v", names)
	}
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(filepath.Dir(path), name)); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if _, err = d.Save(weigh(d.Config, 9), 0); err != nil || len(folder(t, path)) != 1 {
		t.Errorf("no old files are wanted: %v, %v", err, folder(t, path))
	}
}

// Copies are in the order in which they were made, also when the clock goes back an
// hour in autumn, or years because it was wrong. The newest one is never deleted.
func TestBackupsAreInTheOrderOfMaking(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.xml")
	begin := time.Date(2026, 10, 25, 2, 59, 58, 0, time.UTC)
	var made []string
	for i, at := range []time.Duration{0, time.Second, time.Second, -time.Hour, -time.Hour + 5*time.Second, 73 * 365 * 24 * time.Hour, 0, 1, time.Minute, time.Minute} {
		if err := os.WriteFile(path, []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		kept, err := keep(path, begin.Add(at), duplicate)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, filepath.Base(kept))
		if err := prune(path, 4, kept); err != nil {
			t.Fatal(err)
		}
		olds, err := oldFiles(path)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, o := range olds {
			names = append(names, o.name)
		}
		if want := made[max(0, len(made)-4):]; !slices.Equal(names, want) {
			t.Fatalf("kept %v, want %v", names, want)
		}
	}
	// Whatever is there with a later name.
	kept, err := keep(path, begin, duplicate)
	if err != nil {
		t.Fatal(err)
	}
	for _, later := range []string{"-21000101000000", "-21000101000000-7"} {
		if err := os.WriteFile(path+later, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := prune(path, 1, kept); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept); err != nil || len(folder(t, path)) != 3 {
		t.Errorf("the newest has gone: %v, %v", err, folder(t, path))
	}
}

func TestSaveDoesNotOverwriteEdits(t *testing.T) {
	path := sampleFile(t)
	d := readDocument(t, path)
	edited := append(models.Samples(t)["config.xml"], "<!-- by hand -->\n"...)
	if err := os.WriteFile(path, edited, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err := d.Save(weigh(d.Config, 7), 10)
	if !errors.Is(err, ErrEdited) || !strings.HasPrefix(err.Error(), path) {
		t.Errorf("said %v", err)
	}
	if now, _ := os.ReadFile(path); string(now) != string(edited) || len(folder(t, path)) != 1 {
		t.Errorf("something has changed: %v", folder(t, path))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Save(weigh(d.Config, 7), 10); err == nil || len(folder(t, path)) != 0 {
		t.Errorf("a file that has gone: %v, %v", err, folder(t, path))
	}
}

func TestSaveThroughALink(t *testing.T) {
	path := sampleFile(t)
	link := filepath.Join(t.TempDir(), "link.xml")
	if err := os.Symlink(path, link); err != nil {
		t.Skip(err)
	}
	d := readDocument(t, link)
	if _, err := d.Save(weigh(d.Config, 7), 10); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != path {
		t.Errorf("the link is %q, %v", to, err)
	}
	if w := readDocument(t, path).Config.Services[0].Groups[0].Hosts[0].Weight; w != 7 || len(folder(t, path)) != 2 {
		t.Errorf("weight %d, folder %v", w, folder(t, path))
	}
}

// What a killed process has left is no obstacle.
func TestSaveOverLeftovers(t *testing.T) {
	path := sampleFile(t)
	if err := os.WriteFile(besides(path), []byte("<conf"), 0o400); err != nil {
		t.Fatal(err)
	}
	d := readDocument(t, path)
	if _, err := d.Save(weigh(d.Config, 7), 1); err != nil || len(folder(t, path)) != 2 {
		t.Errorf("%v, folder %v", err, folder(t, path))
	}
}

func TestUnreadableFiles(t *testing.T) {
	for path, want := range map[string]string{
		filepath.Join(t.TempDir(), "none.xml"): "no such file",
		t.TempDir():                            "not a regular file",
		namedPipe(t):                           "not a regular file",
	} {
		f, problems := Open(path)
		if f != nil || !strings.Contains(problems.Error(), want) || !strings.HasPrefix(problems.Error(), path) {
			t.Errorf("%s: said %v", path, problems)
		}
	}
}
