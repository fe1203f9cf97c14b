/* SPDX-License-Identifier: MIT */
/*
 * Known answers, through the functions that sealing itself uses: RFC 8032 section 7.1,
 * RFC 7748 section 6.1, RFC 5869 appendix A, FIPS 180-2, and the test cases of the paper
 * in which GCM was proposed.
 */
#include <string.h>

#include "core/util.h"
#include "gclk-test.h"
#include "hex.h"
#include "seal/key.h"

#define MAX 256

static struct gclk_bytes bytes_of(const char *hex, uint8_t buf[MAX])
{
	return (struct gclk_bytes){ buf, unhex(hex, buf) };
}

static void same_bytes(const void *got, const char *hex)
{
	uint8_t want[MAX];
	size_t n = unhex(hex, want);

	CU_ASSERT(!memcmp(got, want, n));
}

GCLK_TEST(crypto, ed25519_gives_the_answers_of_rfc_8032)
{
	static const struct {
		const char *secret, *public, *text, *signature;
	} rows[] = {
		{ "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
		  "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
		  "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a3"
		  "3bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b" },
		{ "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
		  "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
		  "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15"
		  "996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00" },
		{ "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
		  "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
		  "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16"
		  "f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a" },
	};

	for (unsigned i = 0; i < GCLK_COUNT(rows); i++) {
		uint8_t secret[MAX], public[MAX], text[MAX], got[64], derived[32];
		struct gclk_bytes message = bytes_of(rows[i].text, text);
		size_t n = sizeof(derived);
		EVP_PKEY *own, *other;

		unhex(rows[i].secret, secret);
		unhex(rows[i].public, public);
		own = gclk_raw_key(EVP_PKEY_ED25519, 1, secret);
		other = gclk_raw_key(EVP_PKEY_ED25519, 0, public);
		CU_ASSERT_FATAL(own && other);
		GCLK_EQ(EVP_PKEY_get_raw_public_key(own, derived, &n), 1);
		same_bytes(derived, rows[i].public);
		GCLK_EQ(gclk_crypto_sign(own, message, got, NULL), 0);
		same_bytes(got, rows[i].signature);
		GCLK_EQ(gclk_crypto_verify(other, message, got, NULL), 0);
		got[i] ^= 1;
		GCLK_EQ(gclk_crypto_verify(other, message, got, NULL), -GCLK_REFUSED);
		EVP_PKEY_free(own);
		EVP_PKEY_free(other);
	}
}

/* A signature's second half is below the order of the group: the same plus the order is none. */
GCLK_TEST(crypto, a_signature_has_one_form)
{
	static const uint8_t order[32] = { 0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58,
					   0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
					   [31] = 0x10 };
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	struct gclk_bytes text = { "text", 4 };
	uint8_t signature[64];
	unsigned carry = 0;

	CU_ASSERT_FATAL(key != NULL);
	GCLK_EQ(gclk_crypto_sign(key, text, signature, NULL), 0);
	for (unsigned i = 0; i < 32; i++) {
		carry += signature[32 + i] + order[i];
		signature[32 + i] = (uint8_t)carry;
		carry >>= 8;
	}
	GCLK_EQ(carry, 0);
	GCLK_EQ(gclk_crypto_verify(key, text, signature, NULL), -GCLK_REFUSED);
	EVP_PKEY_free(key);
}

GCLK_TEST(crypto, x25519_gives_the_answers_of_rfc_7748)
{
	static const char *const secrets[2] = {
		"77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
		"5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
	};
	static const char *const publics[2] = {
		"8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
		"de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
	};

	for (unsigned i = 0; i < 2; i++) {
		uint8_t secret[MAX], public[MAX], got[32];
		EVP_PKEY *own, *peer;

		unhex(secrets[i], secret);
		unhex(publics[!i], public);
		own = gclk_raw_key(EVP_PKEY_X25519, 1, secret);
		peer = gclk_raw_key(EVP_PKEY_X25519, 0, public);
		CU_ASSERT_FATAL(own && peer);
		GCLK_EQ(gclk_crypto_agree(own, peer, got, NULL), 0);
		same_bytes(got, "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
		EVP_PKEY_free(own);
		EVP_PKEY_free(peer);
	}
}

/* With a point of small order the secret would not hang on ours. */
GCLK_TEST(crypto, x25519_agrees_with_no_key_of_small_order)
{
	static const char *const points[] = {
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	};
	EVP_PKEY *own = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");

	CU_ASSERT_FATAL(own != NULL);
	for (unsigned i = 0; i < GCLK_COUNT(points); i++) {
		uint8_t raw[MAX], got[32];
		EVP_PKEY *peer;

		unhex(points[i], raw);
		peer = gclk_raw_key(EVP_PKEY_X25519, 0, raw);
		CU_ASSERT_FATAL(peer != NULL);
		GCLK_EQ(gclk_crypto_agree(own, peer, got, NULL), -GCLK_REFUSED);
		EVP_PKEY_free(peer);
	}
	EVP_PKEY_free(own);
}

GCLK_TEST(crypto, hkdf_gives_the_answers_of_rfc_5869)
{
	static const struct {
		const char *secret, *salt, *info, *key;
	} rows[] = {
		{ "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "000102030405060708090a0b0c",
		  "f0f1f2f3f4f5f6f7f8f9",
		  "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b8"
		  "87185865" },
		{ "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223242526"
		  "2728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d"
		  "4e4f",
		  "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f80818283848586"
		  "8788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacad"
		  "aeaf",
		  "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6"
		  "d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfd"
		  "feff",
		  "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac782"
		  "7271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3"
		  "434f1d87" },
		{ "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "", "",
		  "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4"
		  "b61a96c8" },
	};

	for (unsigned i = 0; i < GCLK_COUNT(rows); i++) {
		uint8_t secret[MAX], salt[MAX], info[MAX], got[MAX];

		GCLK_EQ(gclk_crypto_hkdf(bytes_of(rows[i].secret, secret),
					 bytes_of(rows[i].salt, salt),
					 bytes_of(rows[i].info, info), got,
					 strlen(rows[i].key) / 2, NULL), 0);
		same_bytes(got, rows[i].key);
	}
}

GCLK_TEST(crypto, gcm_gives_the_published_answers)
{
	static const char zeros[] =
		"0000000000000000000000000000000000000000000000000000000000000000";
	static const char key16[] =
		"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
	static const struct {
		const char *key, *nonce, *aad, *text, *cipher, *tag;
	} rows[] = {
		{ zeros, "000000000000000000000000", "", "", "",
		  "530f8afbc74536b9a963b4f1c4cb738b" },
		{ zeros, "000000000000000000000000", "", "00000000000000000000000000000000",
		  "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919" },
		{ key16, "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
		  "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c959568"
		  "09532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
		  "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590d"
		  "bb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
		  "76fc6ece0f4e1768cddf8853bb2d551b" },
	};

	for (unsigned i = 0; i < GCLK_COUNT(rows); i++) {
		uint8_t key[MAX], nonce[MAX], aad[MAX], text[MAX], got[MAX], back[MAX], tag[16];
		struct gclk_bytes a = bytes_of(rows[i].aad, aad), t = bytes_of(rows[i].text, text);

		unhex(rows[i].key, key);
		unhex(rows[i].nonce, nonce);
		GCLK_EQ(gclk_crypto_encrypt(key, nonce, a, t, got, tag, NULL), 0);
		same_bytes(got, rows[i].cipher);
		same_bytes(tag, rows[i].tag);
		GCLK_EQ(gclk_crypto_decrypt(key, nonce, a, (struct gclk_bytes){ got, t.n }, tag,
					    back, NULL), 0);
		CU_ASSERT(!memcmp(back, text, t.n));
		tag[15] ^= 0x80;
		GCLK_EQ(gclk_crypto_decrypt(key, nonce, a, (struct gclk_bytes){ got, t.n }, tag,
					    back, NULL), -GCLK_REFUSED);
		for (size_t j = 0; j < t.n; j++) {
			GCLK_EQ(back[j], 0);
		}
	}
}

GCLK_TEST(crypto, sha_256_of_parts_is_that_of_the_whole)
{
	const struct gclk_bytes parts[] = { { "a", 1 }, { "", 0 }, { "bc", 2 } };
	uint8_t got[32];

	GCLK_EQ(gclk_crypto_sha256(parts, 3, got, NULL), 0);
	same_bytes(got, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
