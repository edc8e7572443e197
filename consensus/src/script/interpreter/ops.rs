//! The effect of each operation on the stack.
//!
//! By subject: control flow and lock times, the stack itself, numbers, hashes, signatures. An operation fails with the
//! reference's error and makes its checks in the reference's order, since the error is shown to senders.

use bitcoin::Opcode;
use bitcoin::hashes::{Hash, hash160, ripemd160, sha1, sha256, sha256d};
use bitcoin::opcodes::all as op;

use super::super::flag;
use super::super::reader::ScriptReader;
use super::error::ScriptError;
use super::machine::Machine;
use super::number::{self, is_true};
use super::sighash::Version;
use super::signature::{Digests, SEQUENCE_DISABLE_FLAG, check_key_encoding, check_signature_encoding};

type Outcome = Result<(), ScriptError>;

/// Most keys of a multisig operation (`MAX_PUBKEYS_PER_MULTISIG`).
const MAX_KEYS: i64 = 20;

impl Machine<'_> {
    /// Executes one operation that does not push bytes from the script. `taken` is false inside a branch that is not
    /// taken, where only control flow is executed.
    pub(super) fn execute(&mut self, code: Opcode, taken: bool) -> Outcome {
        match code.to_u8() {
            0x4f | 0x51..=0x60 => {
                self.stack.push(number::write(i64::from(code.to_u8()) - 0x50));
                Ok(())
            }
            0x61..=0x6a | 0xb0..=0xb9 => self.control(code, taken),
            0x6b..=0x7d | 0x82 => self.stack_op(code),
            0x87..=0x8a if matches!(code, op::OP_EQUAL | op::OP_EQUALVERIFY) => self.equal(code),
            0x8b..=0xa5 => self.arithmetic(code),
            0xa6..=0xaf => self.crypto(code),
            _ => Err(ScriptError::BadOpcode),
        }
    }

    fn control(&mut self, code: Opcode, taken: bool) -> Outcome {
        match code {
            op::OP_NOP => Ok(()),
            op::OP_IF | op::OP_NOTIF => self.branch(code, taken),
            op::OP_ELSE => {
                let last = self.conditions.last_mut().ok_or(ScriptError::UnbalancedConditional)?;
                *last = !*last;
                Ok(())
            }
            op::OP_ENDIF => self.conditions.pop().map(drop).ok_or(ScriptError::UnbalancedConditional),
            op::OP_VERIFY => self.verify(ScriptError::Verify),
            op::OP_RETURN => Err(ScriptError::OpReturn),
            op::OP_CLTV if self.has(flag::CHECKLOCKTIMEVERIFY) => {
                let wanted = self.lock_time()?;
                let met = self.input.check_lock_time(wanted);
                if met { Ok(()) } else { Err(ScriptError::UnsatisfiedLocktime) }
            }
            op::OP_CSV if self.has(flag::CHECKSEQUENCEVERIFY) => {
                let wanted = self.lock_time()?;
                let met = wanted & SEQUENCE_DISABLE_FLAG != 0 || self.input.check_sequence(wanted);
                if met { Ok(()) } else { Err(ScriptError::UnsatisfiedLocktime) }
            }
            // Reserved for soft forks: OP_NOP1 and OP_NOP4 to OP_NOP10, and the two above without their flags.
            _ if code.to_u8() >= 0xb0 => {
                let discouraged = self.has(flag::DISCOURAGE_UPGRADABLE_NOPS);
                if discouraged { Err(ScriptError::DiscourageUpgradableNops) } else { Ok(()) }
            }
            _ => Err(ScriptError::BadOpcode),
        }
    }

    fn branch(&mut self, code: Opcode, taken: bool) -> Outcome {
        let mut value = false;
        if taken {
            let top = self.stack.pop().ok_or(ScriptError::UnbalancedConditional)?;
            let minimal = matches!(top.as_slice(), [] | [1]);
            if self.version == Version::Witness && self.has(flag::MINIMALIF) && !minimal {
                return Err(ScriptError::MinimalIf);
            }
            value = is_true(&top) != (code == op::OP_NOTIF);
        }
        self.conditions.push(value);
        Ok(())
    }

    fn verify(&mut self, error: ScriptError) -> Outcome {
        if !is_true(self.peek(0)?) {
            return Err(error);
        }
        self.drop_top(1);
        Ok(())
    }

    fn lock_time(&self) -> Result<i64, ScriptError> {
        let wanted = number::read(self.peek(0)?, self.has(flag::MINIMALDATA), number::LOCKTIME_SIZE)?;
        if wanted < 0 { Err(ScriptError::NegativeLocktime) } else { Ok(wanted) }
    }

    fn stack_op(&mut self, code: Opcode) -> Outcome {
        match code {
            op::OP_TOALTSTACK => {
                let top = self.pop()?;
                self.alt.push(top);
            }
            op::OP_FROMALTSTACK => {
                let top = self.alt.pop().ok_or(ScriptError::InvalidAltstackOperation)?;
                self.stack.push(top);
            }
            op::OP_2DROP => {
                self.need(2)?;
                self.drop_top(2);
            }
            op::OP_2DUP => self.copy(1, 2)?,
            op::OP_3DUP => self.copy(2, 3)?,
            op::OP_2OVER => self.copy(3, 2)?,
            op::OP_OVER => self.copy(1, 1)?,
            op::OP_DUP => self.copy(0, 1)?,
            op::OP_2ROT => self.rotate(6, 2)?,
            op::OP_2SWAP => self.rotate(4, 2)?,
            op::OP_ROT => self.rotate(3, 1)?,
            op::OP_SWAP => self.rotate(2, 1)?,
            op::OP_IFDUP => {
                if is_true(self.peek(0)?) {
                    self.copy(0, 1)?;
                }
            }
            op::OP_DEPTH => self.stack.push(number::write(self.stack.len() as i64)),
            op::OP_DROP => self.pop().map(drop)?,
            op::OP_NIP => {
                self.need(2)?;
                let top = self.pop()?;
                self.drop_top(1);
                self.stack.push(top);
            }
            op::OP_PICK | op::OP_ROLL => self.pick(code)?,
            op::OP_TUCK => {
                self.need(2)?;
                let top = self.peek(0)?.to_vec();
                self.stack.insert(self.stack.len() - 2, top);
            }
            op::OP_SIZE => {
                let size = self.peek(0)?.len();
                self.stack.push(number::write(size as i64));
            }
            _ => return Err(ScriptError::BadOpcode),
        }
        Ok(())
    }

    /// Copies `count` elements to the top, the lowest of them `depth` below the top.
    fn copy(&mut self, depth: usize, count: usize) -> Outcome {
        self.need(depth + 1)?;
        let from = self.stack.len() - depth - 1;
        self.stack.extend_from_within(from..from + count);
        Ok(())
    }

    /// Moves the lowest `by` of the top `span` elements to the top.
    fn rotate(&mut self, span: usize, by: usize) -> Outcome {
        self.need(span)?;
        let from = self.stack.len() - span;
        self.stack[from..].rotate_left(by);
        Ok(())
    }

    fn pick(&mut self, code: Opcode) -> Outcome {
        self.need(2)?;
        let depth = self.number(0)?;
        self.drop_top(1);
        let depth = usize::try_from(depth).ok().filter(|depth| *depth < self.stack.len());
        let depth = depth.ok_or(ScriptError::InvalidStackOperation)?;
        if code == op::OP_ROLL { self.rotate(depth + 1, 1) } else { self.copy(depth, 1) }
    }

    fn equal(&mut self, code: Opcode) -> Outcome {
        self.need(2)?;
        let equal = self.pop()? == self.pop()?;
        self.push_bool(equal);
        if code == op::OP_EQUALVERIFY { self.verify(ScriptError::EqualVerify) } else { Ok(()) }
    }

    fn arithmetic(&mut self, code: Opcode) -> Outcome {
        match code {
            op::OP_1ADD | op::OP_1SUB | op::OP_NEGATE | op::OP_ABS | op::OP_NOT | op::OP_0NOTEQUAL => {
                let value = self.number(0)?;
                let result = match code {
                    op::OP_1ADD => value + 1,
                    op::OP_1SUB => value - 1,
                    op::OP_NEGATE => -value,
                    op::OP_ABS => value.abs(),
                    op::OP_NOT => i64::from(value == 0),
                    _ => i64::from(value != 0),
                };
                self.drop_top(1);
                self.stack.push(number::write(result));
                Ok(())
            }
            op::OP_WITHIN => {
                self.need(3)?;
                let (value, least, above) = (self.number(2)?, self.number(1)?, self.number(0)?);
                self.drop_top(3);
                self.push_bool(least <= value && value < above);
                Ok(())
            }
            _ => self.arithmetic_of_two(code),
        }
    }

    fn arithmetic_of_two(&mut self, code: Opcode) -> Outcome {
        // Determined first: an unknown operation fails as such, whatever is on the stack.
        let apply: fn(i64, i64) -> i64 = match code {
            op::OP_ADD => |a, b| a + b,
            op::OP_SUB => |a, b| a - b,
            op::OP_BOOLAND => |a, b| i64::from(a != 0 && b != 0),
            op::OP_BOOLOR => |a, b| i64::from(a != 0 || b != 0),
            op::OP_NUMEQUAL | op::OP_NUMEQUALVERIFY => |a, b| i64::from(a == b),
            op::OP_NUMNOTEQUAL => |a, b| i64::from(a != b),
            op::OP_LESSTHAN => |a, b| i64::from(a < b),
            op::OP_GREATERTHAN => |a, b| i64::from(a > b),
            op::OP_LESSTHANOREQUAL => |a, b| i64::from(a <= b),
            op::OP_GREATERTHANOREQUAL => |a, b| i64::from(a >= b),
            op::OP_MIN => i64::min,
            op::OP_MAX => i64::max,
            _ => return Err(ScriptError::BadOpcode),
        };
        self.need(2)?;
        let result = apply(self.number(1)?, self.number(0)?);
        self.drop_top(2);
        self.stack.push(number::write(result));
        if code == op::OP_NUMEQUALVERIFY { self.verify(ScriptError::NumEqualVerify) } else { Ok(()) }
    }

    fn crypto(&mut self, code: Opcode) -> Outcome {
        match code {
            op::OP_CODESEPARATOR => self.code = self.reader.rest(),
            op::OP_CHECKSIG | op::OP_CHECKSIGVERIFY => return self.checksig(code),
            op::OP_CHECKMULTISIG | op::OP_CHECKMULTISIGVERIFY => return self.checkmultisig(code),
            _ => {
                let data = self.pop()?;
                self.stack.push(match code {
                    op::OP_RIPEMD160 => ripemd160::Hash::hash(&data).as_byte_array().to_vec(),
                    op::OP_SHA1 => sha1::Hash::hash(&data).as_byte_array().to_vec(),
                    op::OP_SHA256 => sha256::Hash::hash(&data).as_byte_array().to_vec(),
                    op::OP_HASH160 => hash160::Hash::hash(&data).as_byte_array().to_vec(),
                    _ => sha256d::Hash::hash(&data).as_byte_array().to_vec(),
                });
            }
        }
        Ok(())
    }

    /// The script code that is signed; before segwit, the signatures themselves are removed from it.
    fn signed_code<'s>(&self, signatures: impl Iterator<Item = &'s Vec<u8>>) -> Vec<u8> {
        let mut code = self.code.to_vec();
        if self.version == Version::Base {
            for signature in signatures {
                find_and_delete(&mut code, &push(signature));
            }
        }
        code
    }

    fn check_encodings(&self, signature: &[u8], key: &[u8]) -> Outcome {
        check_signature_encoding(signature, self.flags)?;
        check_key_encoding(key, self.flags, self.version)
    }

    fn checksig(&mut self, code: Opcode) -> Outcome {
        self.need(2)?;
        let (key, signature) = (self.pop()?, self.pop()?);
        let signed = self.signed_code(std::iter::once(&signature));
        self.check_encodings(&signature, &key)?;
        let digests = &mut Digests::default();
        let right = self.input.check_signature(&signature, &key, &signed, self.version, digests);
        if !right && self.has(flag::NULLFAIL) && !signature.is_empty() {
            return Err(ScriptError::SigNullFail);
        }
        self.push_bool(right);
        if code == op::OP_CHECKSIGVERIFY { self.verify(ScriptError::CheckSigVerify) } else { Ok(()) }
    }

    /// Removes a count and that many elements, and returns them with the top one first. One more element must be below
    /// them: the number of signatures, or the extra element.
    fn take_counted(&mut self, at_most: i64, error: ScriptError) -> Result<Vec<Vec<u8>>, ScriptError> {
        self.need(1)?;
        let count = self.number(0)?;
        if !(0..=at_most).contains(&count) {
            return Err(error);
        }
        // Safe: the range was checked above.
        let count = count as usize;
        if error == ScriptError::PubkeyCount {
            self.count_ops(count)?;
        }
        self.need(count + 2)?;
        self.drop_top(1);
        let mut taken = self.stack.split_off(self.stack.len() - count);
        taken.reverse();
        Ok(taken)
    }

    fn checkmultisig(&mut self, code: Opcode) -> Outcome {
        let keys = self.take_counted(MAX_KEYS, ScriptError::PubkeyCount)?;
        let signatures = self.take_counted(keys.len() as i64, ScriptError::SigCount)?;
        let right = self.match_signatures(&signatures, &keys)?;
        if !right && self.has(flag::NULLFAIL) && signatures.iter().any(|signature| !signature.is_empty()) {
            return Err(ScriptError::SigNullFail);
        }
        // The original implementation removed one element too many, which became a rule.
        let extra = self.pop()?;
        if self.has(flag::NULLDUMMY) && !extra.is_empty() {
            return Err(ScriptError::SigNullDummy);
        }
        self.push_bool(right);
        if code == op::OP_CHECKMULTISIGVERIFY {
            self.verify(ScriptError::CheckMultisigVerify)
        } else {
            Ok(())
        }
    }

    /// Whether each signature matches a key, both in order.
    fn match_signatures(&self, signatures: &[Vec<u8>], keys: &[Vec<u8>]) -> Result<bool, ScriptError> {
        let signed = self.signed_code(signatures.iter());
        let mut digests = Digests::default();
        let mut left = signatures;
        for (index, key) in keys.iter().enumerate() {
            let Some((signature, others)) = left.split_first() else { return Ok(true) };
            if left.len() > keys.len() - index {
                return Ok(false);
            }
            self.check_encodings(signature, key)?;
            if self.input.check_signature(signature, key, &signed, self.version, &mut digests) {
                left = others;
            }
        }
        Ok(left.is_empty())
    }
}

/// A push of `data` as the reference writes it, without the opcodes for small numbers.
pub(super) fn push(data: &[u8]) -> Vec<u8> {
    let length = data.len().to_le_bytes();
    let prefix = match data.len() {
        0..=75 => vec![length[0]],
        76..=0xff => vec![0x4c, length[0]],
        0x100..=0xffff => vec![0x4d, length[0], length[1]],
        _ => [&[0x4e], &length[..4]].concat(),
    };
    [&prefix, data].concat()
}

/// Removes `part` wherever it occurs at the start of an op (`FindAndDelete`).
fn find_and_delete(script: &mut Vec<u8>, part: &[u8]) {
    let mut kept = Vec::with_capacity(script.len());
    let (mut from, mut reader) = (0, ScriptReader::new(script));
    let mut found = false;
    loop {
        let at = script.len() - reader.rest().len();
        kept.extend_from_slice(&script[from..at]);
        let mut rest = reader.rest();
        while let Some(behind) = rest.strip_prefix(part) {
            rest = behind;
            found = true;
        }
        from = script.len() - rest.len();
        reader = ScriptReader::new(rest);
        if rest.is_empty() || reader.next_op().is_err() {
            break;
        }
    }
    if found {
        kept.extend_from_slice(&script[from..]);
        *script = kept;
    }
}
