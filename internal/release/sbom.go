package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"os"
	"path/filepath"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// writeSBOM writes what a built command consists of, as its own build information has it, beside it in CycloneDX form. The
// command itself is named by the release's version and by the checksum of its file.
// It has neither a serial number nor a time: both would make every build another one.
func writeSBOM(binary, version string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return err
	}
	purl := func(path, version string) string { return "pkg:golang/" + path + "@" + version }
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	bom := cdx.NewBOM()
	main := cdx.Component{
		BOMRef: info.Path, Type: cdx.ComponentTypeApplication, Name: filepath.Base(binary), Version: version,
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Licenses:   &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
		PackageURL: purl(info.Main.Path, version) + "#" + filepath.Join("cmd", filepath.Base(info.Path)),
	}
	bom.Metadata = &cdx.Metadata{Component: &main}
	components := []cdx.Component{{
		BOMRef: "pkg:golang/std@" + info.GoVersion, Type: cdx.ComponentTypeLibrary, Name: "std", Version: info.GoVersion,
		PackageURL: "pkg:golang/std@" + info.GoVersion,
	}}
	needs := []string{components[0].BOMRef}
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			continue // by a folder of ours
		}
		ref := purl(dep.Path, dep.Version)
		components = append(components, cdx.Component{
			BOMRef: ref, Type: cdx.ComponentTypeLibrary, Name: dep.Path, Version: dep.Version, PackageURL: ref,
			// The module's h1: hash is one of a listing of its files (golang.org/x/mod/sumdb/dirhash), and not one of
			// CycloneDX' algorithms for a file: it goes as a property.
			Properties: &[]cdx.Property{{Name: "go:sum", Value: dep.Sum}},
		})
		needs = append(needs, ref)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: info.Path, Dependencies: &needs}}

	var b bytes.Buffer
	if err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return err
	}
	return os.WriteFile(binary+".cdx.json", b.Bytes(), 0o644) //nolint:gosec // for everybody to read
}
