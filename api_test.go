package txlb

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAPI holds what other modules may import and api/txlb.txt together: nobody
// changes it without seeing that he does. It is the API on Linux.
func TestAPI(t *testing.T) {
	const file = "api/txlb.txt"
	got := api(t)
	want, err := os.ReadFile(file)
	if err != nil && !*update {
		t.Fatal(err)
	}
	switch {
	case string(want) == got:
	case *update:
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the API is another than %s has (-want +got); if that is meant, run go test . -run TestAPI -update\n%s", file, cmp.Diff(string(want), got))
	}
}

// api lists the exported declarations of all public packages.
func api(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("go", "list", "-f", "{{.Name}} {{.ImportPath}} {{.Dir}} {{join .GoFiles \" \"}}", "./...")
	cmd.Env = append(cmd.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		name, path, dir, files := words[0], words[1], words[2], words[3:]
		if name == "main" || len(files) == 0 || strings.Contains(path+"/", "/internal/") {
			continue
		}
		var list []string
		for _, f := range files {
			list = append(list, exported(t, filepath.Join(dir, f))...)
		}
		slices.Sort(list)
		fmt.Fprintf(&b, "package %s\n\n%s\n", path, strings.Join(list, ""))
	}
	return b.String()
}

// exported lists the exported declarations of a file, without comments, bodies
// and values.
func exported(t *testing.T, file string) (list []string) {
	t.Helper()
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.FileExports(parsed)
	add := func(d ast.Decl) {
		var b bytes.Buffer
		if err := (&printer.Config{Mode: printer.UseSpaces, Tabwidth: 4}).Fprint(&b, token.NewFileSet(), d); err != nil {
			t.Fatal(err)
		}
		list = append(list, b.String()+"\n")
	}
	ast.Inspect(parsed, func(n ast.Node) bool { // else the printer says what is filtered
		switch n := n.(type) {
		case *ast.StructType:
			n.Incomplete = false
		case *ast.InterfaceType:
			n.Incomplete = false
		}
		return true
	})
	for _, d := range parsed.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Body = nil; d.Recv == nil || ast.IsExported(receiver(d)) {
				add(d)
			}
		case *ast.GenDecl:
			if d.Tok == token.IMPORT {
				continue
			}
			for _, s := range d.Specs {
				if v, ok := s.(*ast.ValueSpec); ok {
					v.Values = nil
				}
				add(&ast.GenDecl{Tok: d.Tok, Specs: []ast.Spec{s}})
			}
		}
	}
	return list
}

// receiver is the name of the type that a method is of.
func receiver(d *ast.FuncDecl) string {
	name := ""
	ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && name == "" {
			name = id.Name
		}
		return true
	})
	return name
}

// Every public package says in its comment what its users can rely on.
func TestPublicPackagesSayWhatStays(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.Name}} {{.ImportPath}} {{.Dir}} {{join .GoFiles \" \"}}", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		name, path, dir, files := words[0], words[1], words[2], words[3:]
		if name == "main" || len(files) == 0 || strings.Contains(path+"/", "/internal/") {
			continue
		}
		said := false
		for _, f := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			said = said || strings.Contains(parsed.Doc.Text(), "Compatibility")
		}
		if !said {
			t.Errorf("the comment of package %s does not say what stays compatible: add a sentence that begins with Compatibility", path)
		}
	}
}
