// Package masterkey finds the instance's master key and opens a sealer with it: the key stands in the environment, in a file, or in a file
// that a key management service (KMS) encrypted and alone can decrypt, named by a URL.
//
// With a URL the service is asked once, at the start; what it decrypts never touches a disk, and it is not asked for each sealed value: the
// instance works on while it is away.
//
// It owns the form of the encrypted file. It seals nothing itself. It imports internal/seal, internal/config and gocloud.dev/secrets.
package masterkey
