package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// writeSBOMs writes what a built command consists of, beside it, in the two forms that are asked for: CycloneDX and SPDX.
// Neither has a serial number, and the time in the second is that of the source: anything else would make every build
// another one.
func writeSBOMs(binary, version string, source time.Time) error {
	p, err := partsOf(binary, version)
	if err != nil {
		return err
	}
	bom, err := p.cycloneDX()
	if err != nil {
		return err
	}
	if err := os.WriteFile(binary+".cdx.json", bom, 0o644); err != nil { //nolint:gosec // for everybody to read
		return err
	}
	document, err := p.spdx(source)
	if err != nil {
		return err
	}
	return os.WriteFile(binary+".spdx.json", document, 0o644) //nolint:gosec // for everybody to read
}

func (p parts) cycloneDX() ([]byte, error) {
	bom := cdx.NewBOM()
	main := cdx.Component{
		BOMRef: p.path, Type: cdx.ComponentTypeApplication, Name: p.name, Version: p.version,
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: p.sha256}},
		Licenses:   &cdx.Licenses{{License: &cdx.License{ID: licence}}},
		PackageURL: p.purl(),
	}
	bom.Metadata = &cdx.Metadata{Component: &main}
	var components []cdx.Component
	var needs []string
	for _, l := range p.libraries {
		c := cdx.Component{BOMRef: l.purl(), Type: cdx.ComponentTypeLibrary, Name: l.path, Version: l.version, PackageURL: l.purl()}
		if l.sum != "" {
			// The module's h1: hash is one of a listing of its files (golang.org/x/mod/sumdb/dirhash), and not one of
			// CycloneDX' algorithms for a file: it goes as a property.
			c.Properties = &[]cdx.Property{{Name: "go:sum", Value: l.sum}}
		}
		components, needs = append(components, c), append(needs, c.BOMRef)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: p.path, Dependencies: &needs}}
	var b bytes.Buffer
	err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
	return b.Bytes(), err
}

// licence is ours, by its name in SPDX' list.
const licence = "Apache-2.0"

// notInID is what an identifier of SPDX cannot have (SPDX 2.3, 3.2).
var notInID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func (p parts) spdx(source time.Time) ([]byte, error) {
	const unknown = "NOASSERTION"
	id := func(name string) common.ElementID {
		return common.ElementID("Package-" + notInID.ReplaceAllString(name, "-"))
	}
	reference := func(purl string) []*spdx.PackageExternalReference {
		return []*spdx.PackageExternalReference{{Category: "PACKAGE-MANAGER", RefType: "purl", Locator: purl}}
	}
	document := &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: p.name,
		// It has to be one that no other document has, and the same for the same binary.
		DocumentNamespace: "https://" + p.module + "/spdx/" + p.name + "-" + p.sha256,
		CreationInfo: &spdx.CreationInfo{
			Created:  source.UTC().Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "nametag-release"}},
		},
	}
	add := func(pkg spdx.Package, how string, to common.ElementID) {
		document.Packages = append(document.Packages, &pkg)
		document.Relationships = append(document.Relationships, &spdx.Relationship{
			RefA: common.MakeDocElementID("", string(to)), RefB: common.MakeDocElementID("", string(pkg.PackageSPDXIdentifier)), Relationship: how,
		})
	}
	self := id(p.name)
	add(spdx.Package{
		PackageName: p.name, PackageSPDXIdentifier: self, PackageVersion: p.version, PackageFileName: p.name,
		PackageDownloadLocation: unknown, PackageLicenseConcluded: licence, PackageLicenseDeclared: licence, PackageCopyrightText: unknown,
		PackageChecksums: []common.Checksum{{Algorithm: common.SHA256, Value: p.sha256}}, PackageExternalReferences: reference(p.purl()),
		PrimaryPackagePurpose: "APPLICATION",
	}, "DESCRIBES", "DOCUMENT")
	for _, l := range p.libraries {
		pkg := spdx.Package{
			PackageName: l.path, PackageSPDXIdentifier: id(l.path), PackageVersion: l.version, PackageDownloadLocation: unknown,
			PackageLicenseConcluded: unknown, PackageLicenseDeclared: unknown, PackageCopyrightText: unknown,
			PackageExternalReferences: reference(l.purl()), PrimaryPackagePurpose: "LIBRARY",
		}
		if sum, found := strings.CutPrefix(l.sum, "h1:"); found {
			// SPDX takes the module's hash as the SHA-256 that it is, though one of a listing of files.
			raw, err := base64.StdEncoding.DecodeString(sum)
			if err != nil {
				return nil, fmt.Errorf("the sum of %s: %w", l.path, err)
			}
			pkg.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: hex.EncodeToString(raw)}}
		}
		add(pkg, "DEPENDS_ON", self)
	}
	var b bytes.Buffer
	if err := spdxjson.Write(document, &b); err != nil {
		return nil, err
	}
	var pretty bytes.Buffer
	err := json.Indent(&pretty, b.Bytes(), "", "  ")
	return pretty.Bytes(), err
}
