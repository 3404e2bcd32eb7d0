package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// provenanceFile says what the files were made from, in in-toto's form with SLSA's predicate. It is among the files whose
// checksums are signed, so it needs no signature of its own.
const provenanceFile = "provenance.intoto.json"

const (
	predicateType = "https://slsa.dev/provenance/v1"
	// buildType names how the parameters are to be read: `make release VERSION=…` in a checkout of that commit.
	buildType = "https://github.com/nametag-boot/nametag/make-release@v1"
	sourceURI = "git+https://github.com/nametag-boot/nametag"
)

// writeProvenance writes it for every file that is in dir by now. It has no times: the same source gives the same file.
func writeProvenance(dir, version string) error {
	names, err := files(dir)
	if err != nil {
		return err
	}
	statement := &intoto.Statement{Type: intoto.StatementTypeUri, PredicateType: predicateType}
	for _, name := range names {
		sum, err := digest(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		statement.Subject = append(statement.Subject, &intoto.ResourceDescriptor{Name: filepath.ToSlash(name), Digest: map[string]string{"sha256": sum}})
	}
	external, err := structpb.NewStruct(map[string]any{"version": version})
	if err != nil {
		return err
	}
	internal, err := structpb.NewStruct(map[string]any{"go": runtime.Version()})
	if err != nil {
		return err
	}
	predicate := &provenance.Provenance{
		BuildDefinition: &provenance.BuildDefinition{BuildType: buildType, ExternalParameters: external, InternalParameters: internal},
		RunDetails:      &provenance.RunDetails{Builder: &provenance.Builder{Id: buildType}},
	}
	if commit := commit(); commit != "" {
		predicate.BuildDefinition.ResolvedDependencies = []*intoto.ResourceDescriptor{{
			Uri: sourceURI + "@" + commit, Digest: map[string]string{"gitCommit": commit},
		}}
	}
	if err := predicate.Validate(); err != nil {
		return err
	}
	plain, err := protojson.Marshal(predicate)
	if err != nil {
		return err
	}
	statement.Predicate = new(structpb.Struct)
	if err := protojson.Unmarshal(plain, statement.Predicate); err != nil {
		return err
	}
	if err := statement.Validate(); err != nil {
		return err
	}
	whole, err := protojson.Marshal(statement)
	if err != nil {
		return err
	}
	// protojson puts blanks where it likes (google.golang.org/protobuf/internal/detrand).
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, whole, "", "  "); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, provenanceFile), append(pretty.Bytes(), '\n'), 0o644) //nolint:gosec // for everybody to read
}

// commit is the one that is checked out, or nothing outside of git.
func commit() string {
	out, err := exec.Command("git", "rev-parse", "HEAD").Output() //nolint:noctx // it prints and ends
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
